"""What the other rooms measure with: clocks, histograms, and the state of a store."""
