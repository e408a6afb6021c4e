"""What runs a model file: one module per library, each imported only when one of its files is opened."""
