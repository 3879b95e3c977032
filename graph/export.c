/* export */
#include "graph/graph.h"
