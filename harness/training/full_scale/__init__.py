"""Training at full scale, by one worker or several."""
