/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses are the kernel's. Apart from dataplane.c, so that checking a configuration needs
 * none of DPDK's libraries. */
#include "dataplane/dataplane.h"
#include "dataplane/flow_pair.h"

bool dataplane_is_kernel(const struct dataplane_options *options,
                         const struct flow_address *address)
{
    return options->driver == DATAPLANE_HOST ||
           flow_pair_is_host(options->kernel, options->kernel_count, address);
}
