"""`penstock demo`: one load, called directly, through a FIFO and through penstock."""
