"""Loop and dense references; they import no production code."""
