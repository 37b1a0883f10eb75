"""Mail in object storage: the contract, the lease among servers, and what is asked of the storage."""
