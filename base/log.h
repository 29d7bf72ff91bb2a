/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/span.h"

/*
 * The control path's log: one line per event on standard error, key=value, severity words fatal,
 * error, warning, info, debug. The data path counts instead of logging. Peer text goes through
 * log_escape(). Lines of one reason are rate limited.
 */
enum log_severity { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_FATAL };

void log_set_threshold(enum log_severity least);
/** printf-like; the format is a literal of ours, never data. Newline is added. At most 2,048
 * octets, the rest is cut. */
__attribute__((format(printf, 2, 3))) void log_line(enum log_severity severity, const char *format,
                                                    ...);

/** Printable ASCII as it is (but '\\' and '"' escaped), everything else as \xHH; NUL-terminated,
 * cut to size. Returns ret_text. */
const char *log_escape(struct span octets, char *ret_text, uint32_t size);

#endif
