"""What the files of a model folder hold, before anything of their sizes is made."""
