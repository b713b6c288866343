"""The balancer's commands to the running program, and what they look like to who gives them."""
