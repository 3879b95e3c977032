/* infer */
#include "graph/graph.h"
