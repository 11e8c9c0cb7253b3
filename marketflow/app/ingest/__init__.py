"""From exchanges to batches: feeds, pools of workers, and the modes that choose between them."""
