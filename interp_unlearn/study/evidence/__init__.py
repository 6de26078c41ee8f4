"""The evidence: attacks on every unlearned model, and what tells the two goals apart in the weights."""
