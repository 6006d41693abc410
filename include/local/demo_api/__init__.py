"""The demo API: a source of customers, products and orders that needs no network, with faults and dirt on demand."""
