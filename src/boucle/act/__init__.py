"""Back to the machine, safely: policy, guard, journal, PLC and MES."""
