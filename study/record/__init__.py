"""The record of a study, the only truth: events, journal, state, and who may write them."""
