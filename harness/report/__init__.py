"""What a person sees of a study: the view while it runs, the answer when it stands, and the figures behind both."""
