"""What stands between the network and the page: who may ask, in what form, for which function, with which values."""
