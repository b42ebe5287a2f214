"""Keep the released model loaded: follow releases, try candidates, hold copies, and fall back."""
