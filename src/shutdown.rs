//! One signal that ends every loop.
