// What npm's etcd3 does with a server, told line by line; run by test_node_client.py in a folder that has the package.
'use strict';
const { Etcd3 } = require('etcd3');
const once = (emitter, event) => new Promise((resolve, reject) => {
  emitter.once(event, (...told) => resolve(told));
  emitter.once('error', reject);
});

async function main(endpoint) {
  const client = new Etcd3({ hosts: `http://${endpoint}` });
  const told = [];
  const tell = (...words) => told.push(words);

  await client.put('k/1').value('one');
  await client.put('k/2').value(Buffer.from([0, 255]));
  const bytes = await client.get('k/2').buffer();
  tell('get', await client.get('k/1').string(), await client.get('none').string(), bytes.toString('hex'));
  tell('range', await client.getAll().prefix('k/').sort('Key', 'Descend').limit(1).keys(), await client.getAll().prefix('k/').count());
  const txn = (value) => client.if('k/1', 'Value', '==', value)
    .then(client.put('k/1').value('two')).else(client.get('k/1')).commit();
  for (const value of ['one', 'one']) {
    const answer = await txn(value);
    tell('txn', answer.succeeded, answer.responses.map((each) => each.response));
  }

  const watcher = await client.watch().prefix('w/').withPreviousKV().create();
  const put = once(watcher, 'put');
  await client.put('w/1').value('seen');
  tell('watch put', (await put)[0].value.toString());
  const gone = once(watcher, 'delete');
  await client.delete().key('w/1');
  tell('watch delete', (await gone)[1].value.toString());
  await watcher.cancel();

  const lease = client.lease(10);
  await lease.put('held').value('by a lease');
  tell('keep-alive', (await lease.keepaliveOnce()).TTL, await client.get('held').string());
  await lease.revoke();
  tell('revoked', await client.get('held').string());

  const lock = client.lock('mutex');
  await lock.acquire();
  tell('second', await client.lock('mutex').acquire().catch((error) => error.constructor.name));
  await lock.release();
  await client.stm().transact((tx) => tx.get('k/1').string().then((value) => tx.put('copy').value(value)));
  tell('stm', await client.get('copy').string());

  const election = client.election('office', 5);
  const campaign = election.campaign('me');
  await once(campaign, 'elected');
  tell('leader', await election.leader());
  await campaign.resign();

  tell('refused', await client.put('').value('x').exec().catch((error) => [error.constructor.name, error.message]));
  await client.role('root').create();
  const root = client.user('root');
  await root.create('secret');
  await root.addRole('root');
  await client.auth.authEnable();
  tell('nobody', await client.get('k/1').string().catch((error) => error.message));
  const known = new Etcd3({ hosts: `http://${endpoint}`, auth: { username: 'root', password: 'secret' } });
  tell('root', await known.get('k/1').string(), (await known.getUsers()).map((user) => user.name));
  const wrong = new Etcd3({ hosts: `http://${endpoint}`, auth: { username: 'root', password: 'wrong' } });
  tell('wrong', await wrong.get('k/1').string().catch((error) => error.message));
  await known.auth.authDisable();
  for (const each of [client, known, wrong]) each.close();
  return told;
}
main(process.argv[2])
  .then((told) => told.forEach((each) => console.log(JSON.stringify(each))))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
