"""The record of a study while it runs: what is written into the store, by a thread of its own. What the store is, `tracking` knows."""
