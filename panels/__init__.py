"""The page: one tab a file, each with `build(…)`. What the page shares with the terminal and the API lies in
`models` (which model), `sampling` (which settings) and `generate` (the loop that writes)."""
