/* broker_external: external data that the databroker fetches itself (external_data of the
 * configuration), from servers or files, into sets of rows (common/data/set.h).
 *
 *   WAITING --its time, and the lease of fetching is ours--> FETCHING --answer--> WORKING --> WAITING
 *                 '---------------- a file ---------------------------------------^
 *
 * Of several databrokers on one store the one with the lease fetches. What is found to be the same as
 * last time (ETag, Last-Modified; a file's times) is not read again, unless somebody else has written
 * records of the type since. Every failure leaves in force what is. Loop thread; an answer is read and
 * compared by a thread of its own. */
#pragma once

#include "common/config/config.h"

struct broker_external;
struct broker_service;

struct broker_external *broker_external_new(struct broker_service *service);
/* Takes over new settings; sources that are as they were go on. */
void broker_external_set(struct broker_external *x, const struct config *config);
/* Begins nothing more; what is under way counts as open calls of the service until it is over. */
void broker_external_stop(struct broker_external *x);
void broker_external_free(struct broker_external **x);
