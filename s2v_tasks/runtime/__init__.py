"""The life of a run: plan, estimate, approval, opening, dispatch, sending, finishing."""
