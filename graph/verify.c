/* verify */
#include "graph/graph.h"
