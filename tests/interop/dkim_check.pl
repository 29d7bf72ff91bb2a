#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# Verify messages by Mail::DKIM, with keys from the DNS. Arguments: port of the name server on 127.0.0.1, files with CRLF lines. Output: a line for
# each signature: the file's name, its selector, the result.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS;

my ($port, @files) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 0));
for my $name (@files) {
    my $verifier = Mail::DKIM::Verifier->new();
    open(my $file, '<:raw', $name) or die "$name: $!";
    $verifier->PRINT($_) while <$file>;
    close($file);
    $verifier->CLOSE();
    print join(' ', $name, $_->selector(), $_->result_detail()), "\n" for $verifier->signatures();
}
