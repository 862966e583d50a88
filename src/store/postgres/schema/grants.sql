grant usage on schema grantd to {role};
grant select on all tables in schema grantd to {role};
grant insert (key_id, document, published_at, signs_from) on grantd.signing_key to {role};
grant insert (name, sealed) on grantd.secret to {role};
revoke insert on grantd.revocation from {role};
revoke execute on function grantd.drop_uses_unchecked, grantd.attend_unchecked from {role};
grant insert, update on grantd.secret_use to {role};
grant insert (key, client, ends) on grantd.guard to {role};
grant execute on function
  grantd.poll, grantd.drop_uses, grantd.drop_revocations, grantd.drop_cut_offs,
  grantd.drop_changes, grantd.begin_epoch, grantd.cut_off, grantd.live_nodes, grantd.attend,
  grantd.leave, grantd.leads, grantd.add_next_key, grantd.postpone_key, grantd.shorten,
  grantd.drop_shortened, grantd.revoke, grantd.renew_epoch,
  grantd.report
to {role};
