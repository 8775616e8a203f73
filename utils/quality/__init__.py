"""Whether texts and labels are sound: duplicates, leakage, doubtful labels."""
