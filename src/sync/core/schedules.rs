//! The schedules of tests/outside/schedules, as tests of the state machine alone.
