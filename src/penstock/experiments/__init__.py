"""The paper's evaluation: specification -> runs -> statistics -> tables, plots and claims."""
