//! All SQL: migrations, submissions, queue, scores, weight log, faults.
