//! Command line: flags in, checked options out.
