"""The generated data set: silhouettes in two renderings, with labels, masks and boxes."""
