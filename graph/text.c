/* text */
#include "graph/graph.h"
