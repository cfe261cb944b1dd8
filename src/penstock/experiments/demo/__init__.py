"""`penstock demo`: the same load, directly, through a FIFO and through penstock, on real sockets."""
