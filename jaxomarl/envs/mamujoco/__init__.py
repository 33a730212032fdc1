"""Multi-agent MuJoCo: half-cheetah, ant, hopper and walker2d, cut into agents, on two engines."""
