/* proto */
#include "graph/graph.h"
