"""The data sets' own metrics as pure functions: arrays in, dataclass out."""
