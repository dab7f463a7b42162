"""What is known of the Kubernetes objects around a migration: workloads, pods, endpoints, who owns and who limits them."""
