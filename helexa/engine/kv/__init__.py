"""What is computed once and kept: the keys, values and states of sequences, and who may use them again.

`spans` and `prefixes` decide and know no torch; `layers` and `states` hold the tensors; `attention` reads
them; `memory` is the one that writes all of it.
"""
