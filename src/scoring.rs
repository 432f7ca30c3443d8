//! Scoring: jobs, runners, replies, judge.
