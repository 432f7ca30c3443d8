//! The Dataset API: routes and views.
