"""How trained models act: diffusion policies of one agent or a team, normals under a tanh, plans."""
