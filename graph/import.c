/* import */
#include "graph/graph.h"
