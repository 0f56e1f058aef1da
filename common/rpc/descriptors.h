/* descriptors: proto/ and what it imports as a google.protobuf.FileDescriptorSet, a file behind those that
 * it imports. Generated while building. Constant; any thread. */
#pragma once

#include <stddef.h>

extern const unsigned char rpc_descriptors[];
extern const size_t rpc_descriptors_size;
