"""Knowledge of the Kubernetes objects around a migration: workloads, pods, endpoints, Jobs, quotas, GitOps tools."""
