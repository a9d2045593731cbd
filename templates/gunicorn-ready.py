# readiness
