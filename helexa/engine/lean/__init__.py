"""A forward of few operations for models of the usual shape, made of the parts that transformers loaded.

`parts` recognises the shape, `products` joins and stores what is multiplied, `forward` computes a pass,
`install` tries it.
"""
