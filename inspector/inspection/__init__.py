"""From a camera's record to a proposal: intake, validity, engines, rules."""
