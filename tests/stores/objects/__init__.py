"""Mail in object storage, by parts; the contract of stores, over each storage there is."""
