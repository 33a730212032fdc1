"""How trained models act: diffusion policies of agents or teams, tanh-Gaussian policies, plans."""
