"""What the verbs do: trains, tests, predicts, exports, searches."""
